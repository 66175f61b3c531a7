"""Words, edits and diffs in languages with and without spaces."""

from __future__ import annotations

import re

import pytest

from alignlib.annotation import Filters, filtered
from alignlib.data import QAC
from alignlib.edits import is_fixed
from alignlib.plots import diff_html, show_diffs
from alignlib.report import edit_ratios
from alignlib.texts import pieces, spaced_pieces, whole_characters, words_of

TEXTS = {
    "English": "It isn't far, 2.5 km!",
    "German": "Ja, schön weiß-blau.",
    "Hindi": "यह हिन्दी है।",
    "Chinese": "从北京到上海很远。",
    "Japanese": "京都は 遠い。",
    "Thai": "ไกลมาก",
    "code": "def f(x):\n    return x\n",
    "leading": "  two\t spaces ",
}


@pytest.mark.parametrize("name", TEXTS)
def test_pieces_with_their_spaces_are_the_text(name: str) -> None:
    text = TEXTS[name]
    assert "".join(spaced_pieces(text)) == text
    assert [p.strip() for p in spaced_pieces(text) if p.strip()] == pieces(text)
    if name in ("English", "German", "Hindi", "code", "leading"):
        assert pieces(text) == text.split()


def test_words_of_any_script() -> None:
    assert words_of(TEXTS["English"]) == ["it", "isn't", "far", "2", "5", "km"]
    assert words_of("It’s schön weiß-blau.") == ["it’s", "schön", "weiß-blau"]
    assert words_of(TEXTS["Hindi"]) == ["यह", "हिन्दी", "है"]
    assert words_of("很远。far") == ["很", "远", "far"]
    assert words_of("cafe\u0301 au lait") == ["cafe\u0301", "au", "lait"]


def test_edits_without_spaces_are_counted_by_character() -> None:
    before, after = "从北京到上海很远。", "从北京到南京很远。"
    assert edit_ratios([before], [after])[0] == pytest.approx(2 / 9)
    assert edit_ratios(["a b c d"], ["a x c d"])[0] == 0.25
    row = QAC("远吗？", f"笨蛋，{before}", before)
    assert filtered([row], Filters())[0] == [row]
    assert is_fixed(row, before) and not is_fixed(row, before + "是的，很远很远。")
    short = QAC("Fine?", "👍👍", "👍")
    assert filtered([short], Filters())[1] == {"kept": 1}


def plain(html: str, drop: str) -> str:
    """The text of a diff without what stands in one of its tags."""
    return re.sub(r"<[^>]*>", "", re.sub(rf"<{drop} .*?</{drop}>", "", html, flags=re.DOTALL))


PAIRS = [
    ("a b c", "a b"),
    ("a b", "a b c"),
    ("it is far", "it was far away"),
    ("从北京到上海很远。", "从北京到南京很远。"),
    ("def f():\n    return 1", "def f():\n  return 1"),
    ("one\ntwo", "one two"),
    ("", "new"),
    ("same", "same"),
]


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_a_diff_holds_both_texts(before: str, after: str) -> None:
    html = diff_html(before, after)
    assert plain(html, "del").rstrip(" ") == after and plain(html, "b").rstrip(" ") == before
    assert ("<del" in html or "<b" in html) == (before != after)


def test_a_diff_marks_only_what_changed_and_escapes_it() -> None:
    assert diff_html("从上海", "从南海").count("从") == 1
    html = diff_html("so <b>rude</b> & bad", "so <i> & bad")
    assert "&lt;b&gt;rude&lt;/b&gt; </del>" in html and "&lt;i&gt; </b>" in html
    assert html.endswith("&amp; bad")
    assert "white-space:pre-wrap" in show_diffs([("q", "a\n b", "a\nb")]).data


def test_halves_of_characters_are_replaced() -> None:
    assert whole_characters("so \ud83d far") == "so \ufffd far"
    assert whole_characters("so 👍 far") == "so 👍 far"
