"""Training: of a glimpse on a frozen LVLM (`run`), and of the embedded base (`pretrain`)."""
