"""eczema_tf: a multimodal assistant for eczema assessment, for education and research, not for diagnosis."""

__version__ = "0.1.0"
