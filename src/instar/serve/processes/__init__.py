"""What every process of a server needs: forking, fences, measures, and the words they tell the root."""
