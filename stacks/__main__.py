from tidemill.stacks.program import main

main()
