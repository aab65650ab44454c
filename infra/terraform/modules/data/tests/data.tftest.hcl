# Terraform can't mock what makes the secrets: these are plans by the real provider, for which
# tests/integration/test_terraform.py has an AWS (moto).
provider "aws" {
  region                      = "us-east-1"
  skip_credentials_validation = true
  skip_requesting_account_id  = true
  skip_metadata_api_check     = true
}

override_data {
  target = data.aws_subnet.valkey
  values = { availability_zone = "us-east-1a" }
}

variables {
  name       = "loraplex"
  vpc_id     = "vpc-1"
  subnet_ids = ["subnet-1", "subnet-2"]
  ami_id     = "ami-0123456789abcdef0"
}

run "what_is_stored_is_encrypted_and_kept" {
  command = plan
  assert {
    condition     = aws_db_instance.this.storage_encrypted && aws_db_instance.this.deletion_protection && !aws_db_instance.this.skip_final_snapshot
    error_message = "The database is encrypted, protected, and leaves a snapshot."
  }
  assert {
    condition     = aws_db_instance.this.multi_az && !aws_db_instance.this.publicly_accessible
    error_message = "It has a standby, and no public address."
  }
  assert {
    condition     = aws_efs_file_system.home.encrypted && tobool(aws_ebs_volume.valkey[0].encrypted) && aws_ebs_volume.valkey[0].final_snapshot
    error_message = "So are the home folder and Valkey's disk."
  }
  assert {
    condition     = aws_s3_bucket_public_access_block.this.block_public_policy && aws_s3_bucket_public_access_block.this.restrict_public_buckets
    error_message = "The bucket is nobody's else."
  }
}

run "the_queue_is_on_its_own_machine" {
  command = plan
  assert {
    condition     = aws_instance.valkey[0].metadata_options[0].http_tokens == "required" && aws_instance.valkey[0].associate_public_ip_address == false
    error_message = "IMDSv2, no public address."
  }
  assert {
    condition     = length(aws_elasticache_replication_group.valkey) == 0
    error_message = "ElastiCache is for those who ask for it."
  }
}

run "the_queue_can_be_managed" {
  command = plan
  variables {
    valkey                = "elasticache"
    elasticache_passwords = { platform = "0123456789abcdef", replica = "fedcba9876543210" }
  }
  assert {
    condition     = length(aws_instance.valkey) == 0 && aws_elasticache_replication_group.valkey[0].transit_encryption_enabled
    error_message = "Managed, by TLS."
  }
  assert {
    condition     = output.valkey_instance == null
    error_message = "There is no machine to watch."
  }
}

run "nobody_is_let_in_but_members_of_the_group" {
  command = plan
  assert {
    condition     = alltrue([for rule in [aws_vpc_security_group_ingress_rule.database, aws_vpc_security_group_ingress_rule.valkey, aws_vpc_security_group_ingress_rule.home] : rule.cidr_ipv4 == null])
    error_message = "No address range is let in."
  }
}

run "names_of_two_zones_are_wanted" {
  command = plan
  variables {
    subnet_ids = ["subnet-1"]
  }
  expect_failures = [var.subnet_ids]
}

run "elasticache_wants_passwords" {
  command = plan
  variables {
    valkey = "elasticache"
  }
  expect_failures = [var.elasticache_passwords]
}
