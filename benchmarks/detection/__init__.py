"""How much of what must not be shown NoPII and NoSecrets find, and how much else, on a labelled set."""
