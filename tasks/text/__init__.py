"""What an answer says: the reply without what surrounds it, its words and signs, and the option that it names."""
