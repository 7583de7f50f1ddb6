"""Lab note: which parts of the latent queries with rotary values earn their place?

Claim: turning attention's values by position, the learned positional bias and the start of W_v as
an orthogonal transform each make the bottleneck learn faster (Not in the paper).  Every size below
changes one thing of `full`; TRA is of the validation split, on which choices are made.
Command: python main.py --config=configs/ablate_query.py:VARIANT --workdir=runs/ablate_query \
    --config.data.root=DATA
  cpu    0.8 M parameters, the interpreter's own library, 64 pieces of 2,048 -> 4 latents, three
         seeds
  small  5 M parameters on a GPU, 512 pieces of 4,096 -> 8 latents, three seeds
  large  90 M parameters on a GPU, 512 GPT-2 tokens -> 8 latents, one seed; needs
         --config.tokenizer.folder=GPT2_FOLDER
Hardware: cpu 2 cores; small and large one H200.
status: small and large measured 2026-11-30 (results/query_ablation.json)
"""

from ml_collections import ConfigDict

from cr_jax.config import default, domain

CHANGES = {
    "full": {},
    "plain queries": {"rotary_values": False},
    "no positional bias": {"positional_bias": "none"},
    "fixed positional bias": {"positional_bias": "fixed"},
    "random start of W_v": {"value_start": "random"},
    "RoPE frequencies": {"value_frequencies": "rope"},
    "learned frequencies": {"value_frequencies": "learned"},
    "fold": {"bottleneck": "fold"},
}


def get_config(variant="small"):
    config = VARIANTS[variant]()
    config.name = f"ablate_query_{variant}"
    return config


def cpu():
    """Twelve minutes on two cores: shows the order of the changes."""
    config = default().unlock()
    config.data.domains.python = domain("stdlib@train", "stdlib@valid", "stdlib@valid")
    config.tokenizer.vocab_size = 2048
    config.model.update(
        window=64,
        latents=4,
        d_model=128,
        d_latent=128,
        heads=4,
        d_ff=256,
        encoder_blocks=1,
        decoder_blocks=1,
        tie_embeddings=True,
    )
    config.optimizer.learning_rate = 3e-3
    config.train.update(batch=64, steps=250, log_every=10)
    config.ablation = _axes(seeds=(0, 1, 2))
    return config.lock()


def small():
    """500 steps of 32 windows; three seeds side by side in one program."""
    config = _python(default().unlock())
    config.tokenizer.vocab_size = 4096
    config.model.update(
        window=512,
        latents=8,
        d_model=256,
        d_latent=256,
        heads=4,
        d_ff=768,
        encoder_blocks=2,
        decoder_blocks=2,
        tie_embeddings=True,
    )
    config.optimizer.learning_rate = 3e-3
    config.train.update(batch=32, steps=500, log_every=10)
    config.data.max_train_tokens = 20_000_000
    config.ablation = _axes(seeds=(0, 1, 2))
    return config.lock()


def large():
    """The model of configs/cr_87m.py on 20 M tokens."""
    config = _python(default().unlock())
    config.tokenizer.update(kind="gpt2", folder="gpt2")
    config.model.update(vocab_size=50304, heads=4)
    config.optimizer.update(learning_rate=3e-3, newton_schulz="bfloat16")
    config.train.update(batch=128, tokens=20_000_000, loss_chunk=32768, log_every=10)
    config.eval.batch = 256
    config.ablation = _axes(seeds=(0,), two_heads=dict(heads=2), eight_heads=dict(heads=8))
    return config.lock()


def _axes(seeds, **more):
    return ConfigDict(dict(sizes=ConfigDict({**CHANGES, **more}), seeds=seeds))


def _python(config):
    # Choices are made on valid, so valid stands in the place of test too.
    config.data.domains.code = domain(
        "jsonl:{root}/code_python/train-*.jsonl.zst",
        "jsonl:{root}/code_python/valid.jsonl.zst",
        "jsonl:{root}/code_python/valid.jsonl.zst",
    )
    config.eval.windows = 2048
    return config


VARIANTS = {f.__name__: f for f in (cpu, small, large)}
