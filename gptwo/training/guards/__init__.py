"""What a run does about bad steps and about too little memory."""
