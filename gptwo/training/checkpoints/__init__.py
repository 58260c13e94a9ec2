"""What a run keeps on disk, and how it gets there while training goes on."""
