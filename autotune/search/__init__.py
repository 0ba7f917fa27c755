"""The search: what is proposed, screened, scored, told, and when it ends."""
