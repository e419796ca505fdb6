"""Compiles a layer's frame, as `python compiled_memory.py TEXT...`; for `test_compiled_memory.py`.

A program of its own, because functions whose arguments are checked, as in tests, do not compile.
Prints a JSON object: text -> frames that are equal to those that are not compiled, compilations.
A break in a graph is an error.
"""

import json
import sys

import torch
from torch._dynamo.testing import CompileCounterWithBackend

from everview.memory import parse

FULL, FRAMES = 9, 100
"""Frames until memory is full, and compiled ones after them; the 64th takes the sums anew."""
P, H, D = 6, 2, 32


def frame(seed):
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(1, H, P, D, generator=draws) for _ in range(3)]


def taken(memory, q, k, v):
    memory.append(k, v)
    heads = memory.attend(q)
    memory.settle()
    return heads


def compiled(text):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    step = torch.compile(taken, backend=counter, fullgraph=True)
    ours, theirs = (parse(text).layer_memory(1) for _ in range(2))
    for i in range(FULL):
        taken(ours, *frame(i))
        taken(theirs, *frame(i))
    frames = range(FULL, FULL + FRAMES)
    equal = sum(torch.equal(step(ours, *frame(i)), taken(theirs, *frame(i))) for i in frames)
    return {"equal": equal, "compilations": counter.frame_count}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        json.dump({text: compiled(text) for text in sys.argv[1:]}, sys.stdout)
