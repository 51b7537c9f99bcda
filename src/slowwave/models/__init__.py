"""Language models whose memory goes in and comes out, and what they are made of."""
