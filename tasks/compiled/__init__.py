"""Trees and linear models in compiled form: several times as fast as scikit-learn, equal to it, and never required."""

from tasks.compiled.form import CompiledEstimator, Form, compile_bundle, read_form

__all__ = ["CompiledEstimator", "Form", "compile_bundle", "read_form"]
