# What the EC2 driver starts instances of a pool by: a launch template, a role, a security group that
# nobody can call. Replicas reach Valkey, S3 and the image's registry; nothing reaches them.

locals {
  types = {
    A10G = ["g5.xlarge", "g5.2xlarge"]
    L4   = ["g6.xlarge", "g6.2xlarge"]
    L40S = ["g6e.xlarge", "g6e.2xlarge"]
    A100 = ["p4d.24xlarge", "p4de.24xlarge"]
    H100 = ["p5.4xlarge", "p5.48xlarge"]
  }
  instance_types = coalesce(var.instance_types, local.types[var.accelerator])
  ami_id         = coalesce(var.ami_id, data.aws_ssm_parameter.ami[*].value...)
  models         = var.models_uri == null ? null : regex("^s3://([^/]+)/(.+)$", var.models_uri)
  full_name      = "${var.installation}-${var.name}"
}

data "aws_ssm_parameter" "ami" {
  count = var.ami_id == null ? 1 : 0
  name  = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
}

data "aws_region" "here" {}

data "aws_caller_identity" "me" {}

resource "aws_security_group" "replicas" {
  name        = "${local.full_name}-replicas"
  description = "Loraplex replicas: nobody calls them"
  vpc_id      = var.vpc_id
  tags        = { Name = "${local.full_name}-replicas" }
}

resource "aws_vpc_security_group_egress_rule" "https" {
  security_group_id = aws_security_group.replicas.id
  description       = "S3, SSM, the image's registry"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_vpc_security_group_egress_rule" "redis" {
  security_group_id = aws_security_group.replicas.id
  description       = "Valkey"
  ip_protocol       = "tcp"
  from_port         = var.redis_port
  to_port           = var.redis_port
  cidr_ipv4         = var.redis_cidr
}

resource "aws_launch_template" "this" {
  name                                 = local.full_name
  image_id                             = local.ami_id
  instance_initiated_shutdown_behavior = "terminate" # a replica's instance ends with it
  vpc_security_group_ids               = [aws_security_group.replicas.id]
  update_default_version               = true
  user_data = base64encode(templatefile("${path.module}/user_data.sh.tftpl", {
    boot                  = file("${path.module}/../../../ec2/boot.sh")
    environment_parameter = var.environment_parameter
    image                 = var.image
    models_uri            = var.models_uri == null ? "" : var.models_uri
    region                = data.aws_region.here.name
  }))

  iam_instance_profile {
    arn = aws_iam_instance_profile.replicas.arn
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "enabled" # which replica it is
  }

  block_device_mappings {
    device_name = "/dev/sda1"
    ebs {
      volume_size           = var.disk_gib
      volume_type           = "gp3"
      throughput            = 500
      iops                  = 6000
      encrypted             = true
      kms_key_id            = var.kms_key_arn
      delete_on_termination = true
    }
  }

  tag_specifications {
    resource_type = "volume"
    tags          = { Name = local.full_name }
  }
}
