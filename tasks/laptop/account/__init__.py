"""The operator's AWS account: asked with the operator's own rights, of which nothing is stored."""
