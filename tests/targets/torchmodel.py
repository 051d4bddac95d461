"""A plain PyTorch program: a small model, seeded, evaluated and trained a little; a checksum per step.

torchmodel.py [STEPS]. Knows nothing of radium.
"""

import hashlib
import sys

import torch


def checksum(tensor):
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.ReLU(), torch.nn.Linear(512, 64))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    inputs, wanted = torch.randn(128, 256), torch.randn(128, 64)
    for step in range(steps):
        out = model(inputs)
        loss = ((out - wanted) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(step, checksum(out), checksum(model[0].weight), flush=True)
    print("EXIT-SUCCESS", flush=True)


main()
