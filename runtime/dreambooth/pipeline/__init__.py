"""One job from manifest to result, stage by stage."""
