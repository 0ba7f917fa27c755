"""After the search: finalists measured anew, and the certificate that follows."""
