"""One dict -> `report.html`, a self-contained page, and `report.json`, the dict itself.

    render(report) -> str                      the page
    write_report(report, folder) -> Path       both files, atomically; returns report.html's path

The page makes no request: style and SVG are inline, there is no script, and a content security
policy in its head forbids both. Only numpy and the standard library are used.

Schema. Every key is optional, at every level: what is absent is left out of the page. A number
that is NaN, infinite or None is shown as "–". Experts and domains are named by strings; an expert
has the name of its own domain. Shares are fractions 0..1; `nll` is in nats/token.

    name: str
    summary: experts, parameters (per expert), window (L), latents (M), d_model, d_latent,
        vocab_size: int; bottleneck: str; ratio: float (tokens per latent)
    fingerprint: {expert: {domain: {tra, nll, bits_per_byte, majority_tra, window_exact,
        residual: float, windows, tokens: int}}}; nll: all tokens seen; residual: by the run's rule;
        domains: the experts' own, unseen ones, "random_tokens"
    routing: accuracy, accuracy_tra, accuracy_rebuild, chance: float;
        per_domain: {domain: accuracy};
        confusion: {true: {routed: count}}; windows: int; rule: str ("argmin nats/token to ...")
    ood: auroc_unseen_domain, auroc_random, false_alarm, alpha: float;
        per_domain: {domain: {auroc, auroc_rebuild, fpr95, rejected_at_alpha: float}}
    residuals: {expert: {domain: {edges: [float] (n + 1), counts: [int] (n)}}}, in nats/token
    geometry: points: [[x, y]]; labels: [domain] (as many); explained_variance: {expert:
        [cumulative share]}; components_95: {expert: int}; d_latent_total: int (M * Dz);
        linear_probe_accuracy: float; method: str ("t-SNE")
    sections: {study: {title, read, false_if, finding: str; head: [str]; rows: [[str]]}}, the tables
        of studies that have no section of their own above; {title, left_out: str} of a study that
        could not be made
    modular: settings: {main_prefix: int}; prefix: {str(main_prefix): {after: {arm: {ppl,
        bits_per_byte: {domain: float}; active_params, total_params: int; bound: bool}}}}
    modular_document: every, memory: int, tokens; label_share: float; windows: [[{piece, expert,
        label: str; nats: float}]], who speaks each token and whose text it is
    continual: orders: {order: [domain]}; chosen, main_order, methods_order: str; growth: {rule:
        {experts: [int], accuracy, flips: [float], law: {b: float, b_range: [float]}}}; timeline:
        {rule: [{expert: str; accuracy, flips, lost, nats, own_nats, tra, own_tra: float}]};
        matrix: {rule: [[float]]}; pairs: {rule: [{domain, expert: str; share, lead, lead_high:
        float}]}; methods: {name: {acc, bwt, flip_rate: float; tra: {acc, bwt: float}}}
    curves: {expert: {step: [int], nll: [float], tra: [float]}}
    examples: [{expert, domain: str; tra, nll: float; tokens: [{piece, rebuilt: str, correct: bool,
        confidence: float (the probability of the rebuilt token), nll: float}]}]
        A SentencePiece mark "▁" and a byte piece "<0x0A>" are shown as the text they stand for.
    overlap: {domain: {split: {documents, of_documents, windows, of_windows: int; share_read:
        float}}}: held-out text that also stands in training text (cr_jax.data.overlap); not shown
    seconds: {stage: float}
    provenance: commit, command: str; versions: {package: str}; devices: [str]; config: {...}, whose
        `scoring` says what a residual is
"""

from cr_jax.report.files import write_report
from cr_jax.report.page import render

__all__ = ["render", "write_report"]
