"""The same work in transformers and PyTorch, as a skilled user writes it: what our speed is held against."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining, ElectraForSequenceClassification

from model.modeling import BertConfig

if torch.cuda.is_available():
    torch.set_float32_matmul_precision("high")  # TF32, as TensorFlow does by default


def to_electra_config(config: BertConfig, embedding_size: int, **others: Any) -> ElectraConfig:
    return ElectraConfig(
        vocab_size=config.vocab_size,
        embedding_size=embedding_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        hidden_dropout_prob=config.hidden_dropout_prob,
        attention_probs_dropout_prob=config.attention_probs_dropout_prob,
        max_position_embeddings=config.max_position_embeddings,
        **others,
    )


class ReplacedTokenDetection(torch.nn.Module):
    """Generator and discriminator with shared embeddings, and both losses; logits at the masked positions only, as in ours."""

    def __init__(self, discriminator: ElectraConfig, generator: ElectraConfig, mask_id: int, gen_weight: float, disc_weight: float):
        super().__init__()
        self.discriminator = ElectraForPreTraining(discriminator)
        self.generator = ElectraForMaskedLM(generator)
        self.generator.electra.embeddings = self.discriminator.electra.embeddings
        self.generator.generator_lm_head.weight = self.discriminator.electra.embeddings.word_embeddings.weight
        self.mask_id, self.gen_weight, self.disc_weight = mask_id, gen_weight, disc_weight

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, segments: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """ids, mask, segments int64 [B, L], positions int64 [B, N] of the masked tokens -> the loss."""
        targets = ids.gather(1, positions)
        masked = ids.scatter(1, positions, self.mask_id)
        vectors = self.generator.electra(masked, mask, segments).last_hidden_state
        chosen = vectors.gather(1, positions[..., None].expand(-1, -1, vectors.shape[-1]))
        logits = self.generator.generator_lm_head(self.generator.generator_predictions(chosen)).float()
        generator_loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        cumulative = logits.detach().softmax(-1).cumsum(-1)  # sampled by inversion, as ours
        sampled = torch.searchsorted(cumulative, torch.rand_like(cumulative[..., :1]) * cumulative[..., -1:]).squeeze(-1)
        sampled = sampled.clamp(max=logits.shape[-1] - 1)
        fake = ids.scatter(1, positions, sampled)
        scores = self.discriminator(fake, mask, segments).logits.float()
        losses = F.binary_cross_entropy_with_logits(scores, (fake != ids).float(), reduction="none")
        return self.gen_weight * generator_loss + self.disc_weight * (losses * mask).sum() / mask.sum()


def training_step(
    model: torch.nn.Module, parameters: list[torch.nn.Parameter], precision: str, is_compiled: bool
) -> Callable[..., torch.Tensor]:
    """step(*inputs) -> loss: forward, backward, clipping by the global norm and AdamW, as one would train with PyTorch."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, eps=1e-6, weight_decay=0.01, fused=True)
    model.train()
    forward = torch.compile(model, dynamic=False) if is_compiled else model

    def step(*inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cuda" if inputs[0].is_cuda else "cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            loss = forward(*inputs)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss

    return step


class Classifier(torch.nn.Module):
    """A label for a text, as ForSequenceClassification of the transformers library."""

    def __init__(self, config: ElectraConfig):
        super().__init__()
        self.network = ElectraForSequenceClassification(config)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, segments: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """ids, mask, segments int64 [B, L], labels int64 [B] -> the loss."""
        return self.network(ids, mask, segments, labels=labels).loss


def inference(model: Classifier, precision: str, is_compiled: bool) -> Callable[..., torch.Tensor]:
    """predict(ids, mask, segments) -> logits float32. Weights are in `precision`, so that none is cast in a call."""
    network = model.network.eval().to(getattr(torch, precision))
    forward = torch.compile(network, dynamic=False) if is_compiled else network

    def predict(*inputs: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return forward(*inputs).logits.float()

    return predict
