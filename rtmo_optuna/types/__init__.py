"""Every type that flows through the program: frozen, slotted, units in names, no behaviour beyond derived values."""
