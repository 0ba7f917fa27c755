"""Many adapters trained in one pass over one frozen base: each equals the adapter that training it alone gives."""
