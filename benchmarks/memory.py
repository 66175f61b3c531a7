"""How much memory a likelihood takes, beside one computed from all logits.

    python benchmarks/memory.py

4,096 tokens, of which 400 carry a label, and a vocabulary of 49,152; a process each.
"""

from __future__ import annotations

import resource
import subprocess
import sys

TOKENS, LABELS, VOCABULARY = 4096, 400, 49_152


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(way: str) -> float:
    """MB that a likelihood adds to what the process holds before it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from alignlib.likelihood import row_nll
    from alignlib.tokens import IGNORED

    torch.manual_seed(0)
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    config = LlamaConfig(
        vocab_size=VOCABULARY, num_attention_heads=4, max_position_embeddings=TOKENS, **size
    )
    model = LlamaForCausalLM(config).eval()
    ids = torch.randint(VOCABULARY, (TOKENS,)).tolist()
    labels = [IGNORED] * (TOKENS - LABELS) + ids[-LABELS:]
    model(input_ids=torch.tensor([ids[:16]]))
    before = peak_mb()
    with torch.inference_mode():
        if way == "ours":
            row_nll(model, [{"input_ids": ids, "labels": labels}], 0)
        else:
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[:, :-1]
            targets = torch.tensor([labels])[:, 1:]
            torch.nn.functional.cross_entropy(
                logits.transpose(1, 2).float(), targets, ignore_index=IGNORED, reduction="none"
            )
    return peak_mb() - before


def main() -> None:
    if len(sys.argv) > 1:
        print(measure(sys.argv[1]))
        return
    run = [sys.executable, __file__]
    ours, whole = (float(subprocess.check_output([*run, way])) for way in ("ours", "all"))
    print(f"likelihood: {ours:.0f} MB, from all logits {whole:.0f} MB, ratio {ours / whole:.2f}")


if __name__ == "__main__":
    main()
