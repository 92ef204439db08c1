"""What an answer says: the reply without its surroundings, its words and signs, and the option that it names."""
