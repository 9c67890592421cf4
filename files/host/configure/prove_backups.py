"""Prove that backups with a bucket or keys of their own can be written and read there.

Runs on the host with the credentials that backups will use. That they can be deleted is not needed.
"""

import prove_bucket
import talk

place = talk.request(prove_bucket.Request).place
prove_bucket.main(place, "every backup stays", talk.backup_keys())
