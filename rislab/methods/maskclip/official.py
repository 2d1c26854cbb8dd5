"""Official weights are CLIP's own: OpenAI's names, which open_clip keeps, in two places of ours."""

from rislab.encoders.clip.dense_names import from_official, load_official, to_official

__all__ = ["from_official", "load_official", "to_official"]
