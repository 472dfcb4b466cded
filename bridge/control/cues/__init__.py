"""The cue list: looks that begin one after the other, by hand or by themselves."""
