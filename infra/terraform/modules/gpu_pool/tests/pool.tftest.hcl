mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
  mock_data "aws_ssm_parameter" {
    defaults = { value = "ami-0123456789abcdef0" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0", arn = "arn:aws:ec2:eu-central-1:123456789012:launch-template/lt-0123456789abcdef0" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/replicas" }
  }
  mock_resource "aws_iam_instance_profile" {
    defaults = { arn = "arn:aws:iam::123456789012:instance-profile/replicas" }
  }
}

variables {
  name                  = "l4"
  accelerator           = "L4"
  vpc_id                = "vpc-1"
  subnet_ids            = ["subnet-1", "subnet-2"]
  image                 = "registry.example.com/loraplex/gpu_worker:1"
  environment_parameter = "/loraplex/replicas"
  redis_cidr            = "10.20.0.0/16"
}

run "a_pool_is_what_the_driver_reads" {
  assert {
    condition     = output.pool.types == tolist(["g6.xlarge", "g6.2xlarge"]) && output.pool.spot == false
    error_message = "An L4 is in g6."
  }
  assert {
    condition     = startswith(output.pool.template, "lt-")
    error_message = "The driver starts by the template."
  }
}

run "instances_are_shut" {
  assert {
    condition     = aws_launch_template.this.metadata_options[0].http_tokens == "required"
    error_message = "IMDSv2 only."
  }
  assert {
    condition     = aws_launch_template.this.metadata_options[0].instance_metadata_tags == "enabled"
    error_message = "The boot script reads its tags."
  }
  assert {
    condition     = tobool(aws_launch_template.this.block_device_mappings[0].ebs[0].encrypted)
    error_message = "Disks are encrypted."
  }
  assert {
    condition     = aws_launch_template.this.instance_initiated_shutdown_behavior == "terminate"
    error_message = "An instance ends with its replica."
  }
  assert {
    condition     = aws_vpc_security_group_egress_rule.redis.cidr_ipv4 == "10.20.0.0/16"
    error_message = "Valkey is in the network."
  }
}

run "the_boot_script_is_in_the_user_data" {
  variables {
    models_uri = "s3://weights/models"
  }
  assert {
    condition     = strcontains(base64decode(aws_launch_template.this.user_data), "tags/instance/loraplex:")
    error_message = "boot.sh is missing."
  }
  assert {
    condition     = strcontains(base64decode(aws_launch_template.this.user_data), "LORAPLEX_MODEL_STORE=s3://weights/models")
    error_message = "The replica isn't told where its model is."
  }
  assert {
    condition     = length(aws_launch_template.this.user_data) <= 21848
    error_message = "EC2 takes 16 KiB of user data."
  }
}

run "spot_instances_do_not_wait" {
  command = plan
  variables {
    spot = true
    warm = 1
  }
  expect_failures = [var.warm]
}

run "another_gpu_is_refused" {
  command = plan
  variables {
    accelerator = "T4"
  }
  expect_failures = [var.accelerator]
}

run "a_slash_too_many_is_refused" {
  command = plan
  variables {
    models_uri = "s3://weights/models/"
  }
  expect_failures = [var.models_uri]
}
