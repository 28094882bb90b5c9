"""The company's certificate authority: the server's and the machines' certificates, and who a peer is."""
