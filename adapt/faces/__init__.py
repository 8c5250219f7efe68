"""Networks that look at faces and were made by others: who it is, where its points lie, where faces are."""
