"""How a gradient moves the weights, and by how much at each step."""
