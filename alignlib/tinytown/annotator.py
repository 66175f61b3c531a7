"""An annotator: the minimal correction of any answer to a board, from the text alone.

It reads the answer sentence by sentence. It keeps correct statements word for word, fixes wrong
ones in the same phrasing, adds what is missing, and moves cautions, opener and closer to where
they belong. `sets.corrections` needs no annotator, because it makes faulty answers from good ones.
"""

from __future__ import annotations

from collections import Counter

from .answers import Sentence, Style, good_answer, parse, render
from .boards import Ask, Board, canonical
from .judge import about, score_answer


def annotate(prompt: str, answer: str) -> str:
    """The correction of an answer to a board prompt; a fault-free answer comes back unchanged."""
    if score_answer(prompt, answer).fault_free:
        return answer
    board = Board.parse(prompt)
    sentences, _ = parse(answer)
    style = _style(sentences)
    phrases = {about(s): s[2] for s in sentences if about(s)}
    order = list(dict.fromkeys(map(about, sentences)))

    def position(ask: Ask) -> int:
        """The position of an ask among the answer's replies, else on the board."""
        return order.index(canonical(ask)) if canonical(ask) in order else board.asks.index(ask)

    replies = []
    for ask in sorted(board.asks, key=position):
        phrase = phrases.get(canonical(ask), style.phrase)
        replies += good_answer(Board(board.notes, (ask,)), Style(phrase=phrase))
    return render(style.wrap(list(dict.fromkeys(replies))))


def _style(sentences: list[Sentence]) -> Style:
    """The first opener and closer of an answer, and its most common phrasing."""
    courtesy = {s[0]: s[1] for s in reversed(sentences) if s[0] in ("opener", "closer")}
    phrases = Counter(s[-1] for s in sentences if isinstance(s[-1], int))
    phrase = phrases.most_common(1)[0][0] if phrases else 1
    return Style(courtesy.get("opener", ""), courtesy.get("closer", ""), phrase)
