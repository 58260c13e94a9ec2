"""One file per dataset: where it is, what is asked of the model, how the answers are counted."""
