"""Drawings of lesson 07: where each method acts, and which one to choose."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from .diagrams import Drawing


def draw_methods() -> Figure:
    """Where each method acts: on the weights, beside the question, or on the answer."""
    drawing = Drawing(9.2, 3.9)
    question = drawing.text("question", "question", 0.9, 2.0)
    control = drawing.text("text", "control", 2.5, 3.3)
    model = drawing.weights("model", 4.1, 2.0, trained=True, state="changed by training")
    answer = drawing.text("answer", "answer", 6.1, 2.0)
    correction = drawing.text("correction", "better answer", 8.3, 2.0, width=1.5)
    losses = drawing.loss("SFT, DPO, RLOO,\nmixed loss, HBAT", 4.1, 0.6, width=2.6)
    aligner = drawing.weights("Aligner", 7.2, 3.3, trained=True, state="a second model")
    picker = drawing.weights("best of n", 7.2, 0.6, trained=True, state="a reward model")
    drawing.arrow(question, model)
    drawing.arrow(control, model)
    drawing.arrow(model, answer)
    drawing.gradient(losses, model)
    for way in (aligner, picker):
        drawing.arrow(answer, way)
        drawing.arrow(way, correction)
    drawing.note("MEET: read with the question", 1.9, 2.85)
    drawing.note("corrects it", 8.35, 2.8)
    drawing.note("picks one of many", 8.5, 1.2)
    return drawing.figure


def draw_choice(without_fault: Mapping[str, float]) -> Figure:
    """Questions that lead to a method, and the fraction of its sampled answers without faults."""
    drawing = Drawing(9.8, 5.0)
    asked = {
        "train": drawing.text("question", "Can you train\nthe model itself?", 1.1, 2.6, 1.7),
        "judge": drawing.text(
            "question", "Is there a judge\nthat cannot be fooled?", 3.9, 3.9, 2.1
        ),
        "correct": drawing.text("question", "Corrections\nof answers?", 3.9, 1.0, 1.7),
        "second": drawing.text("question", "A second objective\nto keep?", 5.9, 2.6, 1.9),
    }
    paths = (
        ("train", "judge", "yes"),
        ("train", "correct", "no"),
        ("judge", "second", "no"),
        ("judge", ("RLOO", "RLOO or PPO", 4.6), "yes"),
        ("second", ("mixed loss", "mixed loss, or HBAT", 3.4), "yes"),
        ("second", ("SFT", "SFT; MEET for a dial", 2.3), "no"),
        ("correct", ("Aligner", "Aligner", 1.3), "yes"),
        ("correct", ("best of 8", "best of n", 0.4), "no, only marks"),
    )
    for start, end, words in paths:
        if isinstance(end, tuple):
            method, label, y = end
            label = f"{label}\n{100 * without_fault[method]:.0f} % without faults"
            box = drawing.text("correction", label, 8.6, y, 2.0)
        else:
            box = asked[end]
        drawing.arrow(asked[start], box, words)
    return drawing.figure
