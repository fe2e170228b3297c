"""What the peers serve; run in their own environments, which hold nothing of tidemill."""
