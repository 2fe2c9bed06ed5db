"""Metrics in metres, trivial opponents, and how sure the means are."""

from mask3d_core.evaluation.metrics import METRICS, counted_pixels, depth_metrics, normal_error, seam_error
from mask3d_core.evaluation.opponents import OPPONENTS, MeanMap, Opponent, OpponentPrediction, predict
from mask3d_core.evaluation.scores import FrameScores
from mask3d_core.evaluation.statistics import Estimate, interval, paired_interval, student_interval

__all__ = ["METRICS", "OPPONENTS", "Estimate", "FrameScores", "MeanMap", "Opponent", "OpponentPrediction",
           "counted_pixels", "depth_metrics", "interval", "normal_error", "paired_interval", "predict", "seam_error",
           "student_interval"]
