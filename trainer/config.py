"""TrainConfig: what decides a trained model (hashed: the resume key) and how the training is carried out.

In:  command line > environment (BCD_TRAIN_*) > --config file.yaml > defaults, merged by cli.py.
Out: frozen, validated values. `TrainConfig.sha256()` is the key that a resumed run must match.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from preprocess.config import LogFormat


class Loss(StrEnum):
    """Loss of the main target."""

    BCE = "bce"
    FOCAL = "focal"


class ClassWeights(StrEnum):
    """How the loss weighs positives against negatives."""

    NONE = "none"
    BALANCED = "balanced"
    """N / (2·N_class)."""
    EFFECTIVE = "effective"
    """Effective number of samples (Cui et al., CVPR 2019), β = 0.999."""


class OptimizerName(StrEnum):
    """Optimisers."""

    ADAMW = "adamw"
    ADAM = "adam"


class Precision(StrEnum):
    """Keras dtype policies."""

    FLOAT32 = "float32"
    MIXED_BFLOAT16 = "mixed_bfloat16"
    MIXED_FLOAT16 = "mixed_float16"


class Backend(StrEnum):
    """Keras backends that training is proven on."""

    TENSORFLOW = "tensorflow"
    JAX = "jax"


class Pooling(StrEnum):
    """How a feature map becomes a vector."""

    GEM = "gem"
    """Generalised mean, with a trained exponent (Radenović et al., TPAMI 2019)."""
    MAX = "max"
    AVG = "avg"
    TOP = "top"
    """None: each cell gets logits, and the image's are the means of the highest (Shen et al., MedIA 2021)."""


class BagPooling(StrEnum):
    """How the views of a breast become one prediction; none: every image is an example of its own."""

    NONE = "none"
    MEAN = "mean"
    MAX = "max"
    NOISY_OR = "noisy_or"
    ATTENTION = "attention"


class OnCorrupt(StrEnum):
    """What to do with a record that fails its checksum."""

    FAIL = "fail"
    SKIP = "skip"


class Monitor(StrEnum):
    """Validation metric that chooses the best checkpoint and stops early."""

    PF1 = "pf1"
    BREAST_PF1 = "breast_pf1"
    ROC_AUC = "roc_auc"
    BREAST_ROC_AUC = "breast_roc_auc"
    PR_AUC = "pr_auc"
    BREAST_PR_AUC = "breast_pr_auc"
    LOSS = "loss"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(_Frozen):
    """Which images, which labels, in what proportion, how augmented."""

    target: str = Field("cancer", description="Label column to learn.")
    positive: str | None = Field(
        None, description="Rule that makes a label column binary, such as 'BIRADS>=4'; it names its column."
    )
    batch_size: int = Field(8, ge=1, description="Global batch: images (or bags) a step over all devices.")
    augment: str = Field("light", description="Augmentation: none, light, heavy, or a YAML file.")
    balance: bool = Field(True, description="Draw at least one positive into each global batch.")
    positive_share: float = Field(
        0.125, ge=0, le=1, description="Share of positives in a balanced batch, at the beginning."
    )
    positive_share_end: float | None = Field(
        None, ge=0, le=1, description="… and at the last epoch (linear in between). [default: the same]"
    )
    soft_positive: float = Field(1.0, gt=0.5, le=1, description="Label that positives are trained towards.")
    bags: BagPooling = Field(BagPooling.NONE, description="Train on breasts: pool the views' predictions.")
    bag_views: int = Field(4, ge=1, le=16, description="Views a bag holds at most.")
    on_corrupt: OnCorrupt = Field(OnCorrupt.FAIL, description="Records that fail their checksum.")
    lesions: str | None = Field(
        None, description="Table of lesion boxes: the model also learns where lesions are (training only)."
    )
    lesion_rule: str | None = Field(
        None, description="Rows of that table that count. [default: malignant==1 if there is such a column]"
    )
    window: int = Field(
        0,
        ge=0,
        description="With --lesions: train on windows of N x N pixels, for later --weights; 0: whole images.",
    )
    shuffle_labels: bool = Field(False, description="Negative control: labels permuted among patients.")


class ModelConfig(_Frozen):
    """What is built."""

    model: str = Field("convnext_tiny", description="Backbone; `bcd-train models` lists them.")
    weights: str = Field("imagenet", description="imagenet, phantoms, none, or a weights file.")
    head_blocks: int = Field(1, ge=0, le=4, description="Residual blocks over the backbone's features.")
    head_filters: int = Field(256, ge=8, le=2048, description="Filters of the head's convolutions.")
    pooling: Pooling = Field(
        Pooling.GEM,
        description="How an image's cells become one: by their features, or top: logits.",
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout before the last layer.")
    drop_path: float = Field(0.0, ge=0, lt=1, description="Stochastic depth at the deepest block.")
    auxiliary: tuple[str, ...] = Field((), description="Label columns or view that extra heads learn.")
    auxiliary_weight: float = Field(0.1, ge=0, le=1, description="Weight of each extra head's loss.")
    lesion_weight: float = Field(1.0, ge=0, le=100, description="Weight of the loss of lesions' places.")


class OptimizationConfig(_Frozen):
    """How it is optimised."""

    loss: Loss = Field(Loss.BCE, description="Binary cross-entropy or binary focal cross-entropy.")
    focal_gamma: float = Field(2.0, ge=0, le=10, description="Focusing parameter of the focal loss.")
    focal_alpha: float | None = Field(
        None, gt=0, lt=1, description="Weight of positives in the focal loss. [default: none]"
    )
    class_weights: ClassWeights = Field(ClassWeights.NONE, description="Weights of the classes in the loss.")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Labels become y·(1 − s) + s/2.")
    optimizer: OptimizerName = Field(OptimizerName.ADAMW, description="Optimiser.")
    learning_rate: float = Field(1e-4, gt=0, description="Peak of the cosine schedule.")
    weight_decay: float = Field(0.05, ge=0, description="AdamW's, on kernels only.")
    warmup_epochs: float = Field(0.5, ge=0, description="Linear warm-up.")
    epochs: int = Field(10, ge=1, description="Passes over the training images.")
    head_epochs: int = Field(0, ge=0, description="First epochs in which the backbone is frozen.")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="Learning rate factor per block, output to input."
    )
    ema: float = Field(0.0, ge=0, lt=1, description="Decay of the weights' moving average; 0: none.")
    mixup: float = Field(0.0, ge=0, le=4, description="Mixup's Beta parameter; 0: none.")
    clip_norm: float = Field(1.0, ge=0, description="Global norm that gradients are clipped to; 0: never.")
    accumulate: int = Field(1, ge=1, le=256, description="Parts a global batch is gone through in.")
    backend: Backend = Field(Backend.TENSORFLOW, description="Keras backend; it draws the initial weights.")
    precision: Precision = Field(Precision.FLOAT32, description="Keras dtype policy.")
    monitor: Monitor = Field(Monitor.BREAST_PR_AUC, description="Metric that chooses the best checkpoint.")
    patience: int = Field(0, ge=0, description="Epochs without a better metric before stopping; 0: never.")
    seed: int = Field(
        0, ge=0, lt=1 << 32, description="Seed of initial weights, sampling, augmentation and dropout."
    )


class TrainConfig(_Frozen):
    """Everything that decides what a run learns."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optimization: OptimizationConfig = OptimizationConfig()

    def as_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces. The hashed form."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def sha256(self) -> str:
        """The resume key: hex sha256 of the canonical JSON."""
        return hashlib.sha256(self.as_json().encode()).hexdigest()

    def flat(self) -> dict[str, Any]:
        """Every field by its own name, as JSON: what config.yaml holds and --config reads."""
        sections = self.model_dump(mode="json")
        return {name: value for section in sections.values() for name, value in section.items()}

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> Self:
        """The config that `flat` was taken from. Raises pydantic.ValidationError or TypeError.

        What an older version did not know yet has its default.
        """
        return cls.model_validate(
            {
                section: {name: values[name] for name in type(default).model_fields if name in values}
                for section, default in (
                    ("data", DataConfig()),
                    ("model", ModelConfig()),
                    ("optimization", OptimizationConfig()),
                )
            }
        )


class ExecutionConfig(_Frozen):
    """How a training is carried out."""

    fold: str = Field("0", pattern="^(all|[0-9]+)$", description="Fold that validates, or all in turn.")
    devices: str = Field(
        "all", pattern=r"^(all|cpu|\d+(,\d+)*)$", description="all, cpu, or numbers such as 0,1."
    )
    data_workers: int = Field(0, ge=0, description="Threads that read and augment; 0: one per core.")
    cache: int = Field(
        0, ge=0, description="Bytes for images that stay in memory: read, verified and decoded once."
    )
    deterministic: bool = Field(False, description="Bit-reproducible operations, where slower ones exist.")
    jit: bool = Field(False, description="Compile the step with XLA (JAX always does).")
    memory_limit: int | None = Field(
        None,
        ge=1,
        description="Bytes a device may use: a batch is gone through in as many parts as it takes.",
    )
    checkpoint_minutes: float = Field(10.0, gt=0, description="Time between checkpoints within an epoch.")
    log_format: LogFormat = Field(LogFormat.TEXT, description="text or json (one object a line).")
    overwrite: bool = Field(False, description="Replace a run made with another config or dataset.")
    tensorboard: bool = Field(True, description="Write TensorBoard event files.")
    mlflow: str | None = Field(None, description="MLflow tracking URI (needs the mlflow extra).")
