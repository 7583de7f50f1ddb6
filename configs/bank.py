"""Lab note: twenty domains, one tokenizer, one small compressor each.

Claim: text is routed to its domain by what each frozen compressor makes of it (paper, routing
rule), here between near domains: six programming languages, nine kinds of English prose, ...  The
encoders also predict each token, and texts are routed by that code length (Not in the paper).
Command: python main.py --config=configs/bank.py --workdir=runs/bank --config.data.root=DATA
Hardware: one H100 80 GB, 203 s of training.
status: 1,000 steps measured 2026-11-22 through benchmarks/bank (results/routing.json): 512 tokens
  98.8% with typicality weight 2 (94.4% plain: the logs' expert overfits its 0.95 M tokens and loses
  its own text; 98.9% without the logs); the weight was chosen on valid; TRA at home 97-99.9%
  (logs 72%);
  500 steps route as well (98.98% with typicality weight 2; results/routing_half.json);
  1,500 steps with up to twice the text, next-token weight 1 and at most four epochs route worse
  (98.0% with offsets)
"""

from cr_jax.config import default, domain

CODE = ("code_c", "code_go", "code_java", "code_js", "code_python", "code_rust")
PROSE = ("legal", "literature", "math", "medical", "news", "scientific", "social", "tech_docs",
         "wiki")
OTHER = ("lang_de", "lang_fr", "lang_ru", "lang_zh", "logs")


def get_config():
    config = default()
    config.name = "bank"
    config.data.domains = {
        name: domain(*(f"jsonl:{{root}}/{name}/{split}.jsonl.zst"
                       for split in ("train*", "valid", "test")))
        for name in CODE + PROSE + OTHER}
    config.data.max_train_tokens = 8_000_000
    config.tokenizer.update(vocab_size=32768, train_bytes=2_000_000)
    config.model.update(window=512, latents=8, d_model=256, d_latent=384, heads=4, d_ff=768,
                        encoder_blocks=3, decoder_blocks=3, bottleneck="fold", predictive=True)
    config.optimizer.learning_rate = 3e-3
    config.scoring.update(predicted=True, typicality_weight=2.0)
    config.train.update(batch=32, tokens=16_000_000, loss_chunk=8192, log_every=50)
    config.eval.update(windows=256, calibration_windows=256, batch=128)
    return config
