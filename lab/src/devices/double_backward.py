"""Milliseconds of the steps of replay.rs in PyTorch: the gradient, then the derivative of <s, gradient> with respect to the
parameters and to the weights of the examples. Prints a JSON object."""

import json
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

device, size = sys.argv[1], sys.argv[2]
quick = size == "quick"
torch.manual_seed(0)


def cnn():
    if quick:
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10))
    layers = []
    for i, o in [(3, 32), (32, 64), (64, 128)]:
        layers += [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(), nn.Conv2d(o, o, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, 10))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        b, t, w = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        # The fused attention has no second derivative.
        scores = q @ k.transpose(-1, -2) * (w // self.heads) ** -0.5
        mask = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
        mixed = scores.masked_fill(mask, float("-inf")).softmax(-1) @ v
        x = x + self.proj(mixed.transpose(1, 2).reshape(b, t, w))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Gpt(nn.Module):
    def __init__(self, vocabulary, context, width, layers, heads):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Parameter(0.02 * torch.randn(context, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids):
        return self.out(self.norm(self.blocks(self.tokens(ids) + self.positions)))


def measure(net, inputs, losses):
    net = net.to(device).train()
    parameters = list(net.parameters())
    directions = [torch.sin(torch.arange(p.numel(), device=device, dtype=torch.float32)).view_as(p) * 1e-2 for p in parameters]

    def step():
        weights = torch.full((inputs.shape[0],), 1.0 / inputs.shape[0], device=device, requires_grad=True)
        gradients = torch.autograd.grad((weights * losses(net(inputs))).sum(), parameters, create_graph=True)
        along = sum((g * s).sum() for g, s in zip(gradients, directions))
        return torch.autograd.grad(along, [weights, *parameters], allow_unused=True)

    taken = []
    for repeat in range(2 if quick else 22):
        if device == "cuda":
            torch.cuda.synchronize()
        begun = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        if repeat >= (1 if quick else 2):
            taken.append(1e3 * (time.perf_counter() - begun))
    return sorted(taken)[len(taken) // 2]


times = {}
for batch in [8] if quick else [64, 512]:
    side = 8 if quick else 32
    classes = torch.arange(batch, device=device) * 7 % 10
    x = torch.randn(batch, 3, side, side, device=device)
    times[f"cnn {batch}"] = measure(cnn(), x, lambda y: F.cross_entropy(y, classes, reduction="none"))
sizes, sequences = ((16, 8, 16, 2, 2), 2) if quick else ((64, 128, 384, 6, 6), 16)
ids = torch.arange(sequences * sizes[1], device=device).view(sequences, -1) * 31 % 97 % sizes[0]
tokens = ids.roll(-1, 1)
times[f"gpt {sequences}"] = measure(
    Gpt(*sizes), ids, lambda y: F.cross_entropy(y.transpose(1, 2), tokens, reduction="none").sum(1)
)
print(json.dumps(times))
