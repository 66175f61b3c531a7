"""Drawings of the methods in one visual language (lessons 00 to 07).

Texts are round boxes, one colour each for question, answer and correction. Weights that are trained
are dark; frozen weights are white with a dashed frame. A loss is an ellipse, and the dashed arrow
that leaves it shows where its gradient goes. The frames and words say the same in grey.
"""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch, Patch

from .plots import ACCENT, DARK

INK, PAPER = "#222222", "white"
TEXTS = {  # kinds of text boxes, with their fill
    "question": "#ececec",
    "answer": "#f3d9b1",
    "correction": "#bcd9f0",
    "text": PAPER,
}
FONT = 9.5


@dataclass(frozen=True)
class Box:
    """Something in a drawing that arrows can start from or lead to."""

    x: float
    y: float
    patch: Patch


class Drawing:
    """A drawing of so many units in width and height; a unit is an inch before scaling."""

    def __init__(self, width: float, height: float) -> None:
        self.figure: Figure = plt.figure(figsize=(width, height), dpi=100, facecolor=PAPER)
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(0, height))
        self.axes.set_axis_off()
        plt.close(self.figure)  # a cell that ends with it shows it once

    def text(self, kind: str, words: str, x: float, y: float, width: float = 1.3) -> Box:
        """A text: `kind` is question, answer, correction, or text for any other."""
        shape = self._rectangle(x, y, width, 0.46, TEXTS[kind], "-", "round,pad=0,rounding_size=.2")
        return self._labelled(shape, words, x, y)

    def weights(
        self,
        words: str,
        x: float,
        y: float,
        trained: bool,
        width: float = 1.5,
        height: float = 0.7,
        state: str = "",
    ) -> Box:
        """A model or a part of one, whose weights this training changes, or does not."""
        fill, line = (DARK, "-") if trained else (PAPER, "--")
        shape = self._rectangle(x, y, width, height, fill, line, "square,pad=0")
        state = state or ("being trained" if trained else "frozen")
        return self._labelled(shape, f"{words}\n({state})", x, y, PAPER if trained else INK)

    def loss(self, words: str, x: float, y: float, width: float = 1.7) -> Box:
        """A loss, by what it measures."""
        shape = Ellipse((x, y), width, 0.72, facecolor=PAPER, edgecolor=ACCENT, linewidth=1.8)
        return self._labelled(shape, words, x, y)

    def arrow(self, start: Box, end: Box, words: str = "", bend: float = 0.0) -> None:
        """What flows from one box to another."""
        self._arrow(start, end, INK, "-", bend)
        if words:
            x, y = (start.x + end.x) / 2, (start.y + end.y) / 2
            self.note(words, x, y + 0.13)

    def gradient(self, loss: Box, weights: Box, bend: float = 0.0) -> None:
        """Which weights a loss changes."""
        self._arrow(loss, weights, ACCENT, (0, (4, 2)), bend)

    def heading(self, words: str, x: float, y: float) -> None:
        self.axes.text(x, y, words, fontsize=FONT + 1.5, fontweight="bold", color=INK, va="center")

    def note(self, words: str, x: float, y: float, color: str = INK) -> None:
        """Small words beside an arrow, centred at (x, y)."""
        style = dict(fontsize=FONT - 1, ha="center", va="center", style="italic", color=color)
        self.axes.text(x, y, words, **style)

    def _rectangle(
        self, x: float, y: float, width: float, height: float, fill: str, line: str, style: str
    ) -> Patch:
        corner = (x - width / 2, y - height / 2)
        look = dict(facecolor=fill, edgecolor=INK, linewidth=1.2, linestyle=line)
        return FancyBboxPatch(corner, width, height, boxstyle=style, **look)

    def _labelled(self, shape: Patch, words: str, x: float, y: float, color: str = INK) -> Box:
        self.axes.add_patch(shape)
        self.axes.text(x, y, words, fontsize=FONT, color=color, ha="center", va="center")
        return Box(x, y, shape)

    def _arrow(self, start: Box, end: Box, color: str, line: object, bend: float) -> None:
        ends = dict(posA=(start.x, start.y), posB=(end.x, end.y))
        clip = dict(patchA=start.patch, patchB=end.patch, shrinkA=2, shrinkB=2)
        look = dict(arrowstyle="-|>", mutation_scale=11, linewidth=1.3, color=color, linestyle=line)
        curve = f"arc3,rad={bend}"
        self.axes.add_patch(FancyArrowPatch(**ends, **clip, **look, connectionstyle=curve))


def draw_aligner() -> Figure:
    """The Aligner: how it is used, and how it is trained (arXiv 2402.02416, fig. 1, eq. 4)."""
    drawing = Drawing(9.2, 4.1)

    drawing.heading("Use", 0.2, 3.9)
    question = drawing.text("question", "question", 0.9, 2.9)
    upstream = drawing.weights("upstream", 2.75, 2.9, trained=False)
    answer = drawing.text("answer", "answer", 4.5, 2.9)
    aligner = drawing.weights("Aligner", 6.35, 2.9, trained=False)
    correction = drawing.text("correction", "correction", 8.3, 2.9)
    for start, end in ((question, upstream), (upstream, answer), (answer, aligner)):
        drawing.arrow(start, end)
    drawing.arrow(aligner, correction)
    drawing.arrow(question, aligner, bend=-0.25)
    drawing.note("any model", 2.75, 2.35)

    drawing.heading("Training", 0.2, 1.85)
    question = drawing.text("question", "question", 0.9, 1.05)
    answer = drawing.text("answer", "answer", 2.25, 1.05)
    correction = drawing.text("correction", "correction", 3.6, 1.05)
    aligner = drawing.weights("Aligner", 6.35, 1.05, trained=True)
    loss = drawing.loss("loss on the\ncorrection", 8.3, 1.05)
    drawing.arrow(correction, aligner)
    for words, x in (("no loss", 0.9), ("no loss", 2.25), ("loss", 3.6)):
        drawing.note(words, x, 0.62, ACCENT if words == "loss" else INK)
    drawing.arrow(aligner, loss)
    drawing.gradient(loss, aligner, bend=-0.45)
    drawing.note("gradient", 7.3, 0.3, ACCENT)
    return drawing.figure


def draw_judge() -> Figure:
    """How an answer is measured (lesson 00)."""
    drawing = Drawing(9.2, 1.7)
    question = drawing.text("question", "board and\nquestion", 0.9, 1.2)
    answer = drawing.text("answer", "answer", 0.9, 0.5)
    judge = drawing.weights("judge", 4.0, 0.85, trained=False, state="a program")
    drawing.arrow(question, judge)
    drawing.arrow(answer, judge)
    for i, mark in enumerate(("helpful", "harmless", "honest")):
        drawing.arrow(judge, drawing.text("text", mark, 7.5, 1.4 - 0.55 * i))
    return drawing.figure


def draw_rows() -> Figure:
    """Three ways to rows of question, answer and correction (lesson 01)."""
    drawing = Drawing(9.2, 4.0)
    ways = (3.35, "preference\npairs"), (2.0, "model and\nannotator"), (0.65, "for free")
    for y, label in ways:
        drawing.heading(label, 0.15, y)
    for y, left, right in ((3.35, "rejected", "chosen"), (0.65, "any answer", "the same answer")):
        texts = drawing.text("text", left, 4.0, y + 0.3), drawing.text("text", right, 4.0, y - 0.3)
        for text, part in zip(texts, _row_of(drawing, y), strict=True):
            drawing.arrow(text, part)
    upstream = drawing.weights("upstream", 2.9, 2.3, trained=False, height=0.56)
    annotator = drawing.weights("annotator", 5.2, 1.7, False, height=0.56, state="person or model")
    answer, correction = _row_of(drawing, 2.0)
    drawing.arrow(upstream, annotator)
    drawing.arrow(upstream, answer)
    drawing.arrow(annotator, correction)
    return drawing.figure


def _row_of(drawing: Drawing, y: float) -> tuple[Box, Box]:
    """The answer and the correction of a row, in the last column."""
    answer = drawing.text("answer", "answer", 7.9, y + 0.3)
    return answer, drawing.text("correction", "correction", 7.9, y - 0.3)


def draw_plug_and_play() -> Figure:
    """One Aligner after several upstreams (lesson 03)."""
    drawing = Drawing(9.2, 3.3)
    question = drawing.text("question", "question", 0.8, 1.9)
    aligner = drawing.weights("one Aligner", 6.3, 1.9, trained=False)
    correction = drawing.text("correction", "correction", 8.4, 1.9)
    for y, name in ((2.85, "upstream A"), (1.9, "upstream B"), (0.95, "upstream C")):
        upstream = drawing.weights(name, 2.6, y, trained=False)
        answer = drawing.text("answer", "answer", 4.4, y)
        drawing.arrow(question, upstream)
        drawing.arrow(upstream, answer)
        drawing.arrow(answer, aligner)
    drawing.arrow(drawing.text("question", "question", 6.3, 0.6), aligner)
    drawing.arrow(aligner, correction)
    return drawing.figure


def draw_stories() -> Figure:
    """Two stories of what an Aligner does inside (lesson 04)."""
    drawing = Drawing(9.2, 3.4)
    stories = (
        (2.4, "Story 1: it checks", "mark on the\nwrong word", "edited answer"),
        (0.6, "Story 2: it answers anew", "next word", "new answer"),
    )
    for y, story, between, result in stories:
        drawing.heading(story, 0.2, y + 0.8)
        board = drawing.text("question", "board", 0.9, y + 0.3)
        answer = drawing.text("answer", "answer", 0.9, y - 0.3)
        middle = drawing.text("text", between, 4.0, y, width=1.6)
        drawing.arrow(board, middle)
        drawing.arrow(answer, middle)
        drawing.arrow(middle, drawing.text("correction", result, 7.6, y, width=1.7))
    return drawing.figure


def draw_sft() -> Figure:
    """Supervised fine-tuning: the loss is on the completion alone."""
    drawing = Drawing(9.2, 1.5)
    drawing.text("question", "prompt", 0.9, 0.95)
    completion = drawing.text("correction", "completion", 2.25, 0.95)
    model = drawing.weights("language model", 5.2, 0.95, trained=True, width=1.8)
    loss = drawing.loss("loss on the\ncompletion", 8.1, 0.95)
    drawing.arrow(completion, model)
    drawing.arrow(model, loss)
    drawing.gradient(loss, model, bend=-0.35)
    drawing.note("gradient", 6.7, 0.2, ACCENT)
    return drawing.figure


def draw_dpo() -> Figure:
    """Direct preference optimization (arXiv 2305.18290, eq. 7)."""
    drawing = Drawing(9.2, 2.9)
    drawing.text("question", "prompt", 0.9, 2.2)
    chosen = drawing.text("correction", "chosen", 2.25, 2.2)
    drawing.text("question", "prompt", 0.9, 0.95)
    rejected = drawing.text("answer", "rejected", 2.25, 0.95)
    model = drawing.weights("model", 5.1, 2.2, trained=True)
    reference = drawing.weights("reference", 5.1, 0.95, trained=False)
    loss = drawing.loss("DPO loss", 7.9, 1.6)
    for text in (chosen, rejected):
        drawing.arrow(text, model)
        drawing.arrow(text, reference)
    drawing.arrow(model, loss)
    drawing.arrow(reference, loss)
    drawing.gradient(loss, model, bend=0.35)
    drawing.note("gradient", 7.0, 2.6, ACCENT)
    drawing.note("the model as it was at the start", 5.1, 0.4)
    return drawing.figure


def draw_meet() -> Figure:
    """MEET's two steps, and its use (arXiv 2310.00819)."""
    drawing = Drawing(9.2, 5.9)
    for y, name, model_trained in ((4.6, "Step 1", False), (2.45, "Step 2", True)):
        drawing.heading(name, 0.2, y + 1.05)
        for kind, side, text in (("good", 1, "correction"), ("bad", -1, "answer")):
            height = y + side * 0.36
            control = drawing.weights(kind, 1.0, height, trained=True, width=1.2, height=0.56)
            words = "prompt, preferred" if side > 0 else "prompt, dispreferred"
            row = drawing.text(text, words, 2.62, height, width=2.0)
            if side > 0:
                model = drawing.weights("language model", 5.6, y, model_trained, width=1.8)
                loss = drawing.loss("loss on the\ncompletion", 8.1, y)
                drawing.arrow(model, loss)
            drawing.arrow(row, model)
            drawing.gradient(loss, control, bend=side * 0.17)
        if model_trained:
            drawing.gradient(loss, model, bend=-0.3)
    drawing.heading("Use", 0.2, 1.05)
    drawing.weights("good", 1.0, 0.45, trained=False, width=1.2, height=0.56)
    question = drawing.text("question", "prompt", 2.27, 0.45)
    model = drawing.weights("language model", 5.6, 0.45, trained=False, width=1.8)
    completion = drawing.text("correction", "completion", 8.1, 0.45)
    drawing.arrow(question, model)
    drawing.arrow(model, completion)
    return drawing.figure


def draw_hbat() -> Figure:
    """HBAT's schedule: stages of SFT and DPO in turn, each held to where it starts."""
    drawing = Drawing(9.2, 2.6)
    names = ("base\nmodel", "after\nSFT 1", "after\nDPO 1", "after\nSFT 2", "after\nDPO 2")
    places = [0.75 + 1.95 * i for i in range(5)]
    boxes = [
        drawing.weights(name, x, 1.35, i > 0, 1.05, 0.95, state="trained" if i else "the start")
        for i, (name, x) in enumerate(zip(names, places))
    ]
    stages = ("instructions,\nshard 1", "preferences,\nshard 1")
    stages += ("instructions,\nshard 2", "preferences,\nshard 2")
    for i, stage in enumerate(stages):
        drawing.arrow(boxes[i], boxes[i + 1])
        drawing.note(stage, (places[i] + places[i + 1]) / 2, 2.2)
        if i:
            drawing.gradient(boxes[i + 1], boxes[i], bend=-0.45)
    words = "penalty, from the second stage on: pulls back to the weights at the start of the stage"
    drawing.note(words, 5.4, 0.3, ACCENT)
    return drawing.figure


def draw_ewc() -> Figure:
    """Elastic weight consolidation (arXiv 1612.00796, eq. 3)."""
    drawing = Drawing(9.2, 2.3)
    rows = drawing.text("text", "rows of the\nnew task", 0.9, 1.4)
    model = drawing.weights("weights", 3.4, 1.4, trained=True)
    task = drawing.loss("loss of the\nnew task", 6.1, 1.75)
    penalty = drawing.loss("penalty: squared\ndistance x importance", 6.1, 0.6, width=2.3)
    anchor = drawing.weights("anchor: weights\nat the start", 8.35, 1.4, trained=False, height=0.8)
    drawing.arrow(rows, model)
    drawing.arrow(model, task)
    drawing.arrow(model, penalty)
    drawing.arrow(anchor, penalty)
    drawing.gradient(task, model, bend=0.35)
    drawing.gradient(penalty, model, bend=-0.35)
    return drawing.figure


def draw_ppo() -> Figure:
    """One iteration of PPO (arXiv 1707.06347)."""
    drawing = Drawing(9.2, 2.7)
    prompt = drawing.text("question", "prompt", 0.9, 1.75)
    policy = drawing.weights("policy", 2.75, 1.75, trained=True)
    completion = drawing.text("answer", "completion", 4.6, 1.75)
    judge = drawing.weights("judge", 6.35, 2.2, trained=False, width=1.2, height=0.6)
    reference = drawing.weights("reference", 6.35, 1.3, trained=False, width=1.2, height=0.6)
    loss = drawing.loss("score, minus distance\nfrom the reference", 8.1, 1.75, width=2.1)
    drawing.arrow(prompt, policy)
    drawing.arrow(policy, completion)
    drawing.arrow(completion, judge)
    drawing.arrow(completion, reference)
    drawing.arrow(judge, loss)
    drawing.arrow(reference, loss)
    drawing.gradient(loss, policy, bend=-0.45)
    return drawing.figure
