"""The model of main.rs in PyTorch: the time of a training step, and of a step of the sweep, on the CPU.

    python pytorch.py [small|large] [--steps N] [--threads N]

The step of the sweep is one double backward pass with a weight for each example: the derivative of <g(theta, w), u> by theta is
the Hessian product, and by w the product of each example's gradient with u. It updates no state of AdamW.
"""

import argparse
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

TOKENS, VOCABULARY = 64, 96
SIZES = {"small": (5, 128, 4, 8), "large": (6, 384, 6, 4)}  # layers, width, heads, batch


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, fused):
        b, t, w = x.shape
        q, k, v = (
            part.view(b, t, self.heads, w // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).split(w, dim=-1)
        )
        if fused:  # has no second derivative on the CPU
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            later = torch.ones(t, t, dtype=torch.bool).triu(1)
            scores = (q @ k.transpose(-1, -2)) * (w // self.heads) ** -0.5
            mixed = scores.masked_fill(later, -1e4).softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, w))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Gpt(nn.Module):
    def __init__(self, layers, width, heads):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(TOKENS, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY)

    def forward(self, ids, fused):
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x, fused)
        return self.head(self.norm(x))


def losses(net, ids, targets, fused):
    """The loss of each sequence: the mean over its characters."""
    logits = net(ids, fused)
    each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return each.view(targets.shape).mean(1)


def train(net, adam, ids, targets, fused):
    adam.zero_grad()
    losses(net, ids, targets, fused).mean().backward()
    adam.step()


def sweep(net, parameters, ids, targets, u):
    weights = torch.ones(len(ids), requires_grad=True)
    loss = (weights * losses(net, ids, targets, fused=False)).mean()
    gradient = torch.autograd.grad(loss, parameters, create_graph=True)
    along = sum((g * v).sum() for g, v in zip(gradient, u))
    return torch.autograd.grad(along, [*parameters, weights])


def timed(what, steps):
    what(0)
    times = []
    for step in range(1, steps + 1):
        begun = time.perf_counter()
        what(step)
        times.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", choices=SIZES, nargs="?", default="small")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    layers, width, heads, batch = SIZES[args.size]
    net = Gpt(layers, width, heads)
    parameters = list(net.parameters())
    ids = torch.randint(0, VOCABULARY, (args.steps + 1, batch, TOKENS + 1))
    u = [1e-2 * torch.randn_like(p) for p in parameters]
    adam = torch.optim.AdamW(parameters, lr=3e-4)
    print(f"{args.size}: {sum(p.numel() for p in parameters)} parameters, PyTorch {torch.__version__}, {args.threads} threads")
    for name, fused in [("training step, fused attention", True), ("training step", False)]:
        took = timed(lambda k: train(net, adam, ids[k][:, :-1], ids[k][:, 1:], fused), args.steps)
        print(f"{name}: {took:.1f} ms")
    took = timed(lambda k: sweep(net, parameters, ids[k][:, :-1], ids[k][:, 1:], u), args.steps)
    print(f"step of the sweep: {took:.1f} ms")


if __name__ == "__main__":
    main()
