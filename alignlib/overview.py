"""Drawings of lesson 07: where each method acts, and which one to choose."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from .diagrams import Drawing


def draw_methods() -> Figure:
    """Where each method acts: on the weights, beside the question, or on the answer."""
    drawing = Drawing(9.2, 3.9)
    question = drawing.text("question", "question", 0.9, 2.0)
    control = drawing.weights("control", 2.2, 3.3, trained=True, state="trained by MEET")
    model = drawing.weights("model", 4.1, 2.0, trained=True, state="trained, or as it is")
    answer = drawing.text("answer", "answer", 6.1, 2.0)
    correction = drawing.text("correction", "better answer", 8.3, 2.0, width=1.5)
    losses = drawing.loss("SFT, DPO, RLOO, PPO,\nmixed loss, HBAT", 4.1, 0.6, width=2.6)
    aligner = drawing.weights("Aligner", 7.2, 3.3, trained=True, state="a second model")
    picker = drawing.weights("best of n", 7.2, 0.6, trained=True, state="a reward model")
    drawing.arrow(question, model)
    drawing.arrow(control, model)
    drawing.arrow(model, answer)
    drawing.gradient(losses, model)
    for way in (aligner, picker):
        drawing.arrow(answer, way)
        drawing.arrow(way, correction)
    drawing.note("read with the question", 1.9, 2.7)
    drawing.note("corrects it", 8.35, 2.8)
    drawing.note("picks one of many", 8.5, 1.2)
    return drawing.figure


def draw_choice(without_fault: Mapping[str, float]) -> Figure:
    """Questions that lead to a method, and the fraction of its sampled answers without faults."""
    drawing = Drawing(10.2, 5.2)
    questions = {
        "train": ("Can you train\nthe model itself?", 1.1, 2.6),
        "keep": ("Another skill\nthat must stay?", 3.5, 4.0),
        "judge": ("A judge that\ncannot be fooled?", 5.2, 2.9),
        "styles": ("Several styles\nin one model?", 6.9, 1.9),
        "correct": ("Corrections\nof answers?", 3.5, 0.9),
    }
    boxes = {
        name: drawing.text("question", words, x, y, 1.7)
        for name, (words, x, y) in questions.items()
    }
    paths = (("train", "keep", "yes"), ("train", "correct", "no"))
    paths += (("keep", "judge", "no"), ("judge", "styles", "no"))
    for start, end, words in paths:
        drawing.arrow(boxes[start], boxes[end], words)
    ways = (
        ("keep", ("mixed loss", "HBAT"), 4.7, "yes"),
        ("judge", ("RLOO",), 3.6, "yes"),
        ("styles", ("MEET",), 2.6, "yes"),
        ("styles", ("SFT", "DPO"), 1.8, "no"),
        ("correct", ("Aligner",), 1.0, "yes"),
        ("correct", ("best of 8",), 0.3, "no, only pairs"),
    )
    for start, methods, y, words in ways:
        label = "\n".join(f"{name}: {100 * without_fault[name]:.0f} %" for name in methods)
        drawing.arrow(boxes[start], drawing.text("correction", label, 9.1, y, 1.7), words)
    return drawing.figure
