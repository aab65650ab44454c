# The cheapest: one machine with a GPU that runs compose.yaml, for as long as it runs. Nobody calls
# it; it is reached through AWS' Session Manager (the output `connect`).

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.90, < 7"
    }
  }
}

variable "name" {
  type    = string
  default = "loraplex-dev"
}

variable "instance_type" {
  description = "With one NVIDIA GPU (g6.xlarge: an L4), or without: then replicas run on its CPU."
  type        = string
  default     = "g6.xlarge"
}

variable "spot" {
  description = "A third of the price. When AWS takes it back it stops, and starts again with its disk."
  type        = bool
  default     = true
}

variable "source_url" {
  description = "A git repository, and what of it."
  type        = object({ url = string, ref = string })
}

variable "zone" {
  type    = string
  default = null
}

variable "disk_gib" {
  type    = number
  default = 150

  validation {
    condition     = var.disk_gib >= 100
    error_message = "disk_gib: images and a model need 100 at least."
  }
}

variable "ami_id" {
  type    = string
  default = null
}

locals {
  gpu = can(regex("^(g|p)[0-9]", var.instance_type))
}

data "aws_ssm_parameter" "ami" {
  count = var.ami_id == null ? 1 : 0
  name  = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
}

data "aws_region" "here" {}

resource "aws_vpc" "this" {
  cidr_block           = "10.30.0.0/24"
  enable_dns_hostnames = true
  tags                 = { Name = var.name }
}

resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id
}

resource "aws_subnet" "this" {
  vpc_id            = aws_vpc.this.id
  cidr_block        = aws_vpc.this.cidr_block
  availability_zone = var.zone
}

resource "aws_route_table" "this" {
  vpc_id = aws_vpc.this.id
  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.this.id
  }
}

resource "aws_route_table_association" "this" {
  subnet_id      = aws_subnet.this.id
  route_table_id = aws_route_table.this.id
}

resource "aws_security_group" "this" {
  name        = var.name
  description = "Nobody calls it"
  vpc_id      = aws_vpc.this.id
}

resource "aws_vpc_security_group_egress_rule" "this" {
  security_group_id = aws_security_group.this.id
  description       = "Images, hubs, Session Manager"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_vpc_security_group_egress_rule" "packages" {
  security_group_id = aws_security_group.this.id
  description       = "Packages of Debian and Ubuntu, signed"
  ip_protocol       = "tcp"
  from_port         = 80
  to_port           = 80
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_iam_role" "this" {
  name = var.name
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

# What Session Manager's agent needs, and no more.
resource "aws_iam_role_policy" "session_manager" {
  name = "session-manager"
  role = aws_iam_role.this.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect = "Allow"
      Action = [
        "ssm:UpdateInstanceInformation",
        "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
      ]
      Resource = "*" # they know no resource
    }]
  })
}

resource "aws_iam_instance_profile" "this" {
  name = var.name
  role = aws_iam_role.this.name
}

resource "aws_instance" "this" {
  ami                         = coalesce(var.ami_id, one(data.aws_ssm_parameter.ami[*].value))
  instance_type               = var.instance_type
  subnet_id                   = aws_subnet.this.id
  vpc_security_group_ids      = [aws_security_group.this.id]
  iam_instance_profile        = aws_iam_instance_profile.this.name
  associate_public_ip_address = true # to reach out: a NAT gateway costs more than this machine
  ebs_optimized               = true
  user_data_replace_on_change = false # everything is on its disk
  user_data = templatefile("${path.module}/machine.sh.tftpl", {
    profile = local.gpu ? "gpu" : "cpu"
    ref     = var.source_url.ref
    url     = var.source_url.url
  })

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
  }

  root_block_device {
    volume_size = var.disk_gib
    volume_type = "gp3"
    encrypted   = true
  }

  dynamic "instance_market_options" {
    for_each = var.spot ? [1] : []
    content {
      market_type = "spot"
      spot_options {
        spot_instance_type             = "persistent"
        instance_interruption_behavior = "stop"
      }
    }
  }

  lifecycle {
    ignore_changes = [ami, user_data]
  }
  tags = { Name = var.name }
}

output "connect" {
  description = "Makes it http://127.0.0.1:8000 here."
  value       = "aws ssm start-session --region ${data.aws_region.here.name} --target ${aws_instance.this.id} --document-name AWS-StartPortForwardingSession --parameters portNumber=8000,localPortNumber=8000"
}

output "api_key_command" {
  description = "Prints the API key, and what the machine is doing until there is one."
  value       = "aws ssm start-session --region ${data.aws_region.here.name} --target ${aws_instance.this.id} --document-name AWS-StartInteractiveCommand --parameters command='sudo grep ^LORAPLEX_API_KEY= /opt/loraplex/.env || sudo tail /var/log/cloud-init-output.log'"
}
