"""Lab note: 1.08 B parameters, one expert on Python source.

Claim: the compressor keeps its quality above the paper's 87 M (paper, limits: "wanted 1 B+").
Command: python main.py --config=configs/cr_1b.py --workdir=runs/cr_1b \
    --config.data.root=DATA --config.tokenizer.folder=GPT2_FOLDER
  --config=configs/cr_1b.py:7b  6.96 B, for 8 GPUs that share one copy of the state
Hardware: one 80 GB GPU; 7b: 8 of them.  Memory per device from the compiled programs:
  results/memory_plan.json (python benchmarks/memory_plan.py).
status: steps timed 2026-11-22 (results/scaling.json): 66.6 K tokens/s, 56.6% of the chip's matmul
  rate, 20.3 GiB; its model with AdamW, 32 windows, no remat (results/throughput.json): 90.0 K,
  75.2%, 36.2 GiB; not trained to an end, 7b not run
"""

from cr_jax.config import default, domain


def get_config(variant="1b"):
    config = default()
    config.name = f"cr_{variant}"
    config.data.domains = {
        "code": domain(
            "jsonl:{root}/code_python/train-*.jsonl.zst",
            "jsonl:{root}/code_python/valid.jsonl.zst",
            "jsonl:{root}/code_python/test.jsonl.zst",
        )
    }
    config.data.unseen = {"wikitext": domain(test="jsonl:{root}/wikitext/valid.jsonl.zst")}
    config.tokenizer.update(kind="gpt2", folder="gpt2")
    config.model.update(vocab_size=50304, bottleneck="fold", remat=True, scan=True)
    # Half the memory of the optimiser's first moment; parameters and second moments stay float32.
    config.optimizer.update(learning_rate=1e-3, muon_learning_rate=0.01, momentum_dtype="bfloat16")
    config.train.update(
        batch=256,
        accumulate=4,
        tokens=2_000_000_000,
        loss_chunk=16384,
        log_every=20,
        checkpoint_every=900.0,
    )
    config.eval.update(windows=0, batch=64)
    VARIANTS[variant](config)
    return config


def _one_billion(config):
    # The paper's latents: a larger model, the same 8 x 512 numbers.
    config.model.update(d_model=2048, heads=16, d_ff=6144, encoder_blocks=8, decoder_blocks=8)


def _seven_billion(config):
    config.model.update(d_model=4096, heads=32, d_ff=12288, encoder_blocks=15, decoder_blocks=15)
    config.mesh_fsdp = 8


VARIANTS = {"1b": _one_billion, "7b": _seven_billion}
