"""Optional C kernels, each with a plain Python twin."""
