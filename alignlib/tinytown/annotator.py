"""An annotator: the minimal correction of any answer to a board, whoever gave it.

It reads the answer sentence by sentence, keeps right statements word for word, mends wrong ones in
the phrasing they were said in, adds what is missing, and puts cautions and courtesies where they
belong. Where the generator of `sets.corrections` knows the good answer it spoilt, this one has only
the text, as a person would.
"""

from __future__ import annotations

from collections import Counter

from .answers import Sentence, Style, good_answer, parse, render
from .boards import Board, canonical
from .judge import about, score_answer


def annotate(prompt: str, answer: str) -> str:
    """The correction of an answer to a board prompt. A fault-free answer comes back as it is."""
    if score_answer(prompt, answer).fault_free:
        return answer
    board, said = Board.parse(prompt), parse(answer)[0]
    style = _style(said)
    phrases = {about(s): s[2] for s in said if about(s)}
    order = list(dict.fromkeys(about(s) for s in said))
    asks = sorted(
        board.asks,
        key=lambda a: order.index(canonical(a)) if canonical(a) in order else board.asks.index(a),
    )
    replies = [
        s
        for a in asks
        for s in good_answer(
            Board(board.notes, (a,)), Style(phrase=phrases.get(canonical(a), style.phrase))
        )
    ]
    opener = [("opener", style.opener)] if style.opener else []
    return render(
        [*opener, *dict.fromkeys(replies), *([("closer", style.closer)] if style.closer else [])]
    )


def _style(said: list[Sentence]) -> Style:
    """The first opener and closer of an answer, and its commonest phrasing."""
    courtesy = {s[0]: s[1] for s in reversed(said) if s[0] in ("opener", "closer")}
    phrases = Counter(s[-1] for s in said if isinstance(s[-1], int))
    return Style(
        courtesy.get("opener", ""),
        courtesy.get("closer", ""),
        phrases.most_common(1)[0][0] if phrases else 1,
    )
