"""The PyTorch peer: the same compressor (fold bottleneck), written as PyTorch likes it.

Parameter names and shapes are those of `cr_jax.models`, joined by dots; `from_jax` splits the
stacked blocks, because PyTorch's gradient of a slice writes the whole stack.  Master weights are
float32; every use casts them to `dtype`, which is what the JAX modules do and what autocast would
do.  Imports no JAX.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cr_jax.config import ModelConfig
from cr_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Variant:
    """How the same function is computed; the benchmark keeps the fastest."""

    loss: str = "plain"  # plain: F.cross_entropy on whole logits; chunked: as in models.objective
    attention: str = "flash"  # flash, cudnn, or math (float32, CPU)
    projection: str = "split"  # split: three products for q, k, v; joined: one

    def __str__(self) -> str:
        return f"{self.loss}/{self.attention}/{self.projection}"

    @classmethod
    def parse(cls, text: str) -> "Variant":
        """The inverse of `str`.  Raises `UserError`."""
        parts = text.split("/")
        known = (("plain", "chunked"), ("flash", "cudnn", "math"), ("split", "joined"))
        if len(parts) != 3 or any(p not in k for p, k in zip(parts, known)):
            raise UserError(
                f"--variant: '{text}' must be like plain/flash/split; choices: "
                + " / ".join("|".join(k) for k in known)
            )
        return cls(*parts)


_BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


def from_jax(tree: Mapping) -> dict[str, np.ndarray]:
    """params["params"] of `cr_jax.models` -> {the peer's parameter name: array}.

    Leaves under `blocks` [blocks, ...] become `blocks.0` to `blocks.{n - 1}`; others keep their
    path, joined by dots.
    """
    found = {}

    def walk(node, path):
        if isinstance(node, Mapping):
            for name, child in node.items():
                walk(child, (*path, name))
        elif "blocks" in path:
            at = path.index("blocks") + 1
            for i, part in enumerate(np.asarray(node)):
                found[".".join((*path[:at], str(i), *path[at:]))] = part
        else:
            found[".".join(path)] = np.asarray(node)

    walk(tree, ())
    return found


def rms_norm(x: torch.Tensor) -> torch.Tensor:
    """x / rms(x) along the last axis, in float32; no learned scale."""
    return F.rms_norm(x.float(), (x.shape[-1],), eps=1e-6).to(x.dtype)


def rotary(window: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(cos, sin), each [L, 1, K/2], of positions 0..L-1, base 10,000."""
    half = width // 2
    frequency = 10_000.0 ** (-torch.arange(half, dtype=torch.float32) / half)
    angle = torch.arange(window, dtype=torch.float32)[:, None] * frequency[None, :]
    return torch.cos(angle)[:, None, :], torch.sin(angle)[:, None, :]


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding of x [B, L, H, K]; halves rotated against each other."""
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)


def _matrix(*shape: int, scale: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * (scale / shape[-2]) ** 0.5)


class Attention(nn.Module):
    """Multi-head self-attention with QK-norm and rotary positions: [B, L, D] -> [B, L, D]."""

    def __init__(self, config: ModelConfig, variant: Variant, out_scale: float):
        super().__init__()
        d = config.d_model
        self.heads, self.variant = config.heads, variant
        self.qkv = _matrix(3, d, d)
        self.out = _matrix(d, d, scale=out_scale)

    def forward(self, x, cos, sin):
        b, length, d = x.shape
        kernel = self.qkv.to(x.dtype)
        if self.variant.projection == "joined":
            q, k, v = (x @ kernel.transpose(0, 1).reshape(d, 3 * d)).chunk(3, dim=-1)
        else:
            q, k, v = x @ kernel[0], x @ kernel[1], x @ kernel[2]
        split = lambda y: y.reshape(b, length, self.heads, d // self.heads)
        q, k = rotate(rms_norm(split(q)), cos, sin), rotate(rms_norm(split(k)), cos, sin)
        with sdpa_kernel(_BACKENDS[self.variant.attention]):
            y = F.scaled_dot_product_attention(
                q.transpose(1, 2), k.transpose(1, 2), split(v).transpose(1, 2)
            )
        return y.transpose(1, 2).reshape(b, length, d) @ self.out.to(x.dtype)


class SwiGlu(nn.Module):
    """(silu(x W1) * x W2) W3: [B, L, D] -> [B, L, D]."""

    def __init__(self, config: ModelConfig, variant: Variant, out_scale: float):
        super().__init__()
        d, f = config.d_model, config.d_ff
        self.joined = variant.projection == "joined"
        self.up = _matrix(2, d, f)
        self.down = _matrix(f, d, scale=out_scale)

    def forward(self, x):
        up = self.up.to(x.dtype)
        if self.joined:
            d, f = up.shape[1:]
            a, b = (x @ up.transpose(0, 1).reshape(d, 2 * f)).chunk(2, dim=-1)
        else:
            a, b = x @ up[0], x @ up[1]
        return (F.silu(a) * b) @ self.down.to(x.dtype)


class Block(nn.Module):
    """Bidirectional pre-norm block; child names follow the Linen ones."""

    def __init__(self, config: ModelConfig, variant: Variant, out_scale: float):
        super().__init__()
        self.attention = Attention(config, variant, out_scale)
        self.mlp = SwiGlu(config, variant, out_scale)

    def forward(self, x, cos, sin):
        x = x + self.attention(rms_norm(x), cos, sin)
        return x + self.mlp(rms_norm(x))


class Stack(nn.Module):
    """`blocks` blocks in a row, each optionally rematerialised."""

    def __init__(self, config: ModelConfig, variant: Variant, blocks: int):
        super().__init__()
        self.remat = config.remat
        self.blocks = nn.ModuleList(Block(config, variant, 0.5 / blocks) for _ in range(blocks))

    def forward(self, x, cos, sin):
        for block in self.blocks:
            if self.remat:
                x = torch.utils.checkpoint.checkpoint(block, x, cos, sin, use_reentrant=False)
            else:
                x = block(x, cos, sin)
        return x


class Fold(nn.Module):
    """Each position has its own linear read-out of its latent; see `cr_jax.models.bottlenecks`."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        c = self.config = config
        if c.window % c.latents:
            raise UserError(
                f"the PyTorch peer needs latents={c.latents} to divide window={c.window}"
            )
        self.span = c.window // c.latents
        row = self.span * c.fold_channels
        self.narrow = _matrix(c.d_model, c.fold_channels)
        self.fold = _matrix(row, c.d_latent)
        self.unfold = _matrix(c.d_latent, row)
        self.widen = _matrix(c.fold_channels, c.d_model)
        self.positions = nn.Parameter(0.1 * torch.randn(c.window, c.d_model))

    def compress(self, h):
        """h [B, L, D] -> z [B, M, Dz]."""
        c = self.config
        x = h @ self.narrow.to(h.dtype)
        return x.reshape(h.shape[0], c.latents, -1) @ self.fold.to(h.dtype)

    def expand(self, z):
        """z [B, M, Dz] -> [B, L, D]."""
        c = self.config
        x = (z @ self.unfold.to(z.dtype)).reshape(z.shape[0], -1, c.fold_channels)[:, : c.window]
        return x @ self.widen.to(z.dtype) + self.positions.to(z.dtype)


class Peer(nn.Module):
    """tokens int64 [B, L] -> states before the vocabulary [B, L, D].

    Raises `UserError` for bottlenecks other than `fold`: the benchmark times that one.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, variant: Variant = Variant()):
        super().__init__()
        if config.bottleneck != "fold":
            raise UserError(
                f"the PyTorch peer has the fold bottleneck only, not "
                f"{config.bottleneck}: add --framework jax"
            )
        c, self.config, self.dtype = config, config, dtype
        self.embedding = nn.Parameter(torch.randn(c.vocab_size, c.d_model))
        self.hidden_token = nn.Parameter(torch.randn(c.d_model))
        self.encoder = Stack(c, variant, c.encoder_blocks)
        self.bottleneck = Fold(c)
        self.decoder = Stack(c, variant, c.decoder_blocks)
        if not c.tie_embeddings:
            self.head = nn.Parameter(self.embedding.detach().T.contiguous() * c.d_model**-0.5)
        cos, sin = rotary(c.window, c.d_model // c.heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = F.embedding(tokens, self.embedding).to(self.dtype)
        h = rms_norm(self.encoder(rms_norm(x), self.cos, self.sin))
        x = self.bottleneck.expand(self.bottleneck.compress(h))
        return rms_norm(self.decoder(x, self.cos, self.sin))

    def kernel(self) -> torch.Tensor:
        """The vocabulary matrix [D, V], float32."""
        if self.config.tie_embeddings:
            return self.embedding.T * self.config.d_model**-0.5
        return self.head


def plain_loss(h: torch.Tensor, kernel: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean nats/token of h [N, D] against targets [N]: whole logits, F.cross_entropy."""
    return F.cross_entropy((h @ kernel.to(h.dtype)).float(), targets)


def score_chunk(h, kernel, targets, weight: float):
    """One chunk: (nll [n], its gradient in h [n, D], in the kernel [D, V])."""
    logits = (h @ kernel).float()
    log_z = torch.logsumexp(logits, dim=-1)
    nll = log_z - logits.gather(1, targets[:, None])[:, 0]
    hot = targets[:, None] == torch.arange(kernel.shape[1], device=h.device)
    d_logits = ((torch.exp(logits - log_z[:, None]) - hot.float()) * weight).to(h.dtype)
    return nll, d_logits @ kernel.T, h.T @ d_logits


class ChunkedLoss(torch.autograd.Function):
    """Linear cross-entropy in chunks; the gradient is formed while the logits are at hand.

    `score` is `score_chunk` or its compiled form.  Mean nats/token, as `plain_loss`.
    """

    @staticmethod
    def forward(ctx, h, kernel, targets, chunk, score):
        half, count = kernel.to(h.dtype), targets.shape[0]
        d_h, total = torch.empty_like(h), h.new_zeros((), dtype=torch.float32)
        d_kernel = torch.zeros(kernel.shape, dtype=torch.float32, device=h.device)
        for start in range(0, count, chunk):
            piece = slice(start, start + chunk)
            nll, d_h[piece], product = score(h[piece], half, targets[piece], 1.0 / count)
            d_kernel += product
            total += nll.sum()
        ctx.save_for_backward(d_h, d_kernel)
        return total / count

    @staticmethod
    def backward(ctx, scale):
        d_h, d_kernel = ctx.saved_tensors
        return d_h * scale.to(d_h.dtype), d_kernel * scale, None, None, None


def make_loss(net: Peer, variant: Variant, chunk: int, compiler=lambda f: f):
    """-> `loss(tokens) -> mean nats/token`; `compiler` is `torch.compile` or the identity."""
    if variant.loss == "plain":
        whole = lambda tokens: plain_loss(net(tokens).flatten(0, 1), net.kernel(), tokens.flatten())
        return compiler(whole)
    trunk, score = compiler(net), compiler(score_chunk)
    return lambda tokens: ChunkedLoss.apply(
        trunk(tokens).flatten(0, 1), net.kernel(), tokens.flatten(), chunk, score
    )
