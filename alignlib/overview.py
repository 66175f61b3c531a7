"""Drawings of lesson 07: where each method acts, and which one to choose."""

from __future__ import annotations

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
    drawing.note("picks one of many", 8.3, 1.2)
    return drawing.figure


def draw_choice() -> Figure:
    """Questions that lead to a method, from left to right."""
    drawing = Drawing(9.6, 5.0)
    ask = [
        drawing.text("question", "Can you train\nthe model itself?", 1.1, 2.6, 1.7),
        drawing.text("question", "Is there a judge\nthat cannot be fooled?", 4.0, 3.9, 2.0),
        drawing.text("question", "Corrections\nof answers?", 4.0, 1.0, 1.7),
        drawing.text("question", "A second aim that\nmust not suffer?", 6.0, 2.6, 1.8),
    ]
    ways = {
        "RLOO, PPO": drawing.text("correction", "RLOO or PPO", 8.5, 4.6, 1.7),
        "HBAT": drawing.text("correction", "mixed loss,\nor HBAT", 8.5, 3.3, 1.7),
        "SFT": drawing.text("correction", "SFT or DPO,\nMEET for a dial", 8.5, 2.2, 1.7),
        "Aligner": drawing.text("correction", "Aligner", 8.5, 1.2, 1.7),
        "best of n": drawing.text("correction", "best of n", 8.5, 0.4, 1.7),
    }
    paths = (
        (ask[0], ask[1], "yes"),
        (ask[0], ask[2], "no"),
        (ask[1], ways["RLOO, PPO"], "yes"),
        (ask[1], ask[3], "no"),
        (ask[2], ways["Aligner"], "yes"),
        (ask[2], ways["best of n"], "no, only marks"),
        (ask[3], ways["HBAT"], "yes"),
        (ask[3], ways["SFT"], "no"),
    )
    for start, end, words in paths:
        drawing.arrow(start, end, words)
    return drawing.figure
