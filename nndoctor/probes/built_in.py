"""Which probes a doctor starts with; a new one is one line here."""

from __future__ import annotations

from nndoctor.probes.accumulation import AccumulationProbe
from nndoctor.probes.adversary import AdversaryProbe
from nndoctor.probes.attention import AttentionProbe
from nndoctor.probes.balance import BalanceProbe
from nndoctor.probes.base import Probe
from nndoctor.probes.batch_axis import BatchAxisProbe
from nndoctor.probes.batches import BatchProbe
from nndoctor.probes.checkpoint import CheckpointProbe
from nndoctor.probes.cuts import CutProbe
from nndoctor.probes.decay import DecayProbe
from nndoctor.probes.evaluation import EvaluationProbe
from nndoctor.probes.experts import ExpertProbe
from nndoctor.probes.frozen_norms import FrozenNormProbe
from nndoctor.probes.latent import LatentProbe
from nndoctor.probes.layer_work import LayerWorkProbe
from nndoctor.probes.loss_contract import LossContractProbe
from nndoctor.probes.loss_terms import LossTermsProbe
from nndoctor.probes.norm_statistics import NormStatisticsProbe
from nndoctor.probes.ownership import OwnershipProbe
from nndoctor.probes.packaged import packaged_probes
from nndoctor.probes.padding import PaddingProbe
from nndoctor.probes.pauses import PausesProbe
from nndoctor.probes.precision import PrecisionProbe
from nndoctor.probes.representations import RepresentationProbe
from nndoctor.probes.retention import RetentionProbe
from nndoctor.probes.risky_ops import RiskyOperationsProbe
from nndoctor.probes.scaling import ScalingProbe
from nndoctor.probes.schedule import ScheduleProbe
from nndoctor.probes.structure import StructureProbe
from nndoctor.probes.supervision import SupervisionProbe
from nndoctor.probes.targets import TargetProbe


def further_probes() -> list[Probe]:
    """Probes that need nothing from the doctor but its events, in the order in which they are told."""
    batches = BatchProbe()
    return [
        OwnershipProbe(),
        FrozenNormProbe(),
        NormStatisticsProbe(),
        CheckpointProbe(),
        RetentionProbe(),
        AccumulationProbe(),
        EvaluationProbe(),
        CutProbe(),
        TargetProbe(),
        AttentionProbe(),
        LatentProbe(),
        ScalingProbe(),
        ScheduleProbe(),
        batches,
        BalanceProbe(),
        SupervisionProbe(batches),
        BatchAxisProbe(),
        PrecisionProbe(),
        DecayProbe(),
        LossContractProbe(),
        PaddingProbe(),
        StructureProbe(),
        RiskyOperationsProbe(),
        LossTermsProbe(),
        AdversaryProbe(),
        ExpertProbe(),
        RepresentationProbe(),
        *packaged_probes(),
        PausesProbe(),
        LayerWorkProbe(),
    ]
