"""A config with nothing but what must be given."""

MINIMAL = """
name: test
model: {base: tiny}
glimpse: {prune_layer: 2}
vip: {taps: [3, 1]}
data: {train: ["tiny:train"], val: ["tiny:val"], test: {test: ["tiny:test"]}}
optim: {max_steps: 3}
"""
