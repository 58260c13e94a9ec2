"""logits -> next id -> streamed text (paper section 3 and appendix 8; the released samplers)."""
