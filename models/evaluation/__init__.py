"""The evaluation of a flow on held-out rows: likelihoods, tests of its samples and latents, a verdict, pictures."""
